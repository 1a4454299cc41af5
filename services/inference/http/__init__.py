"""The HTTP surface of inference: the OpenAI API, the operators' endpoints, and the forms of both."""
