"""Time travel: what a family served at a moment, who decided it, and on what evidence."""
