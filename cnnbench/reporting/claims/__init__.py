"""Claims of the lecture as data (conf/claims), the runs that test them, and what these say: a verdict for each."""
