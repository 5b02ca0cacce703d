"""Neural style: losses as in the lecture, networks that give features, and engines that make stylized images."""
