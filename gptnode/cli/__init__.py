"""What people type: the commands, the chat in the terminal, and how errors reach a person."""
