-- Takes items out that were led in hand. What has been leased meanwhile stays: its worker may never report, and then only
-- the end of its lease, which is in `due`, brings the item back to whoever sees that it is done.
-- ARGV: the members.
for _, member in ipairs(ARGV) do
  if redis.call('HEXISTS', lease, key_of(member)) == 0 then redis.call('ZREM', due, member) end
end
