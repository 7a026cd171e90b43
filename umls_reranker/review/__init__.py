"""What people do: pages to review answers on, and the corrections that come of it."""
