"""What the tools share: arguments, and messages for users."""
