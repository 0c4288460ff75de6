"""What a net has learned, in pictures: each file is one way of looking, `studio.py` what they share."""
