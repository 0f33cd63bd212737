"""What things take: seconds, memory, operations; and how far devices agree."""
