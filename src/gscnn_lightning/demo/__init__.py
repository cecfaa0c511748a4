"""A static page that segments pictures in the browser: the folder that it is, and a server to try it."""
