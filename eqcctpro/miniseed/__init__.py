"""Records of miniSEED: their headers, codes and order, damage, and what a file of them holds."""
