"""The agent: retrieval, ingestion and the model, behind ports."""
