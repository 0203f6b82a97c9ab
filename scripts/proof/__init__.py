"""What the scripts that attack and disturb gptnode are made of; see fuzz.py, attack.py, chaos.py."""
