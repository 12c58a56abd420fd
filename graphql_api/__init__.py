"""The edge: settings, identity, schema, HTTP and the command line."""
