"""Real clients of the OpenAI API as scripts for environments of their own, and what records what they send."""
