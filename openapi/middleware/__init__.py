"""What a request passes before its handler; `openapi/app.py` has the order."""
