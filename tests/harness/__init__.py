"""What every test and benchmark driver shares: starting, stopping and killing the broker under test."""
