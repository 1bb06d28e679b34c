"""A fleet of real processes to which everything bad happens, and which has to have lost nothing in the end."""
