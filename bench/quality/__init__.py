"""How steady a swap is, and who becomes whom: measured on clips whose truth is known."""
