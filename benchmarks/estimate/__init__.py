"""How well agreement on real images is told without one: runs with the truth, and a map fitted to them."""
