"""What becomes of what nobody needs: retention decides, collection deletes, while all is served."""
