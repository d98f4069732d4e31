"""The process that serves: the command line, the web server and its HTTP protocol."""
