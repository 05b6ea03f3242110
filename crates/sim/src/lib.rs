//! Simulated disk and clock, and the checkers that watch them. Test only.
