"""Floor 2: whatever steers generation becomes tokens, a vector or planes."""
