"""Review by people: pages to review answers, and the resulting corrections."""
