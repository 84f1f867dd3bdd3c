"""How far the lighter model is from the original: divergence, skills, speed, and the statistics that say how sure."""
