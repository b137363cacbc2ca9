"""Pictures: any image, in memory or in a file, to and from the one form that everything else works on."""
