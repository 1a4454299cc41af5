"""`/v1/responses`: OpenAI's other form of a conversation, answered by what answers chats."""
