"""What came out: tables, intervals, significance and pictures."""
