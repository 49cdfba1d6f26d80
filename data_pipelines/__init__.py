"""From audio files to shards (`build`), and from shards to batches of crops (`crops`)."""
