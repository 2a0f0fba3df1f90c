-- Since when the directory does not know the account of a mailbox; NULL while it does. A mailbox is removed when that has
-- been so for long (`local_delivery.collect.accounts_grace`): not at once, for a directory may be one that was restored.
ALTER TABLE mailbox.account ADD COLUMN gone_since timestamptz;
