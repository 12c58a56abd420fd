"""What a field does, whatever the protocol that asks for it."""
