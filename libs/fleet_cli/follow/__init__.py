"""Following one loop or one training job until its end."""
