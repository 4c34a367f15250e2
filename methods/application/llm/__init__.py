"""Methods of the group application/llm."""
