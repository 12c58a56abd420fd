"""Tests of the command line and the server as processes of their own."""
