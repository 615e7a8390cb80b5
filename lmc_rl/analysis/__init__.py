"""From what was measured on lines to barriers, tables and figures."""
