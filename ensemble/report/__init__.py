"""How good the blend is, where it fails and what to do next: facts of a workspace, and one page that shows them."""
