"""Shared by the tools: arguments and error messages."""
