"""What a request passes before its handler, in the order that `openapi/app.py` lists."""
