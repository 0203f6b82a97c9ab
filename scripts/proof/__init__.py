"""What the scripts that attack and disturb gptnode are made of: fuzz, attack, chaos, soak."""
