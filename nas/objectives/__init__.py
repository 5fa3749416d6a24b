"""What is traded off and limited, and the search space under those limits."""
