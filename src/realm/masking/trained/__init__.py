"""The tagger `trained`: a small convolutional network whose weights ship in the package."""
