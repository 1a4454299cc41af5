"""What a finished job leaves behind for people and other systems."""
