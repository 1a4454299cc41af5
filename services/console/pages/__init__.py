"""The pages, one module each: what it calls with the viewer's token, and the template that shows it."""
