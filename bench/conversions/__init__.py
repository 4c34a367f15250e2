"""One function per asset: extracted files in, files that the suite reads out."""
