"""What the trainer knows of golden data sets: prints of their prompts, never the prompts, to train on none of them."""
