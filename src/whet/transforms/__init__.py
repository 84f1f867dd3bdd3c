"""What is folded into the original first, exactly, so that rounding loses less: made, proposed and judged on text."""
