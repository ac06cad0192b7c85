//! The rooms of the house depend on each other in one direction only.
