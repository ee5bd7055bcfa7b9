-- Counts of all limits of one request, in one step: none is counted unless all fit.
--
-- KEYS: one hash per party. A limit has two fields of it, its count `NAME` and its time `NAME:t`:
-- of a bucket the moment up to which it has leaked, of a part of the calendar its beginning.
-- ARGV: `reserve` or `settle`, the time in milliseconds for which a hash is kept, then per limit
--   1 number of its key      2 name of its field
--   3 length of the bucket in milliseconds, 0 for a part of the calendar
--   4 most that may be counted      5 amount, which may be negative where it is settled
--   6 amount to count as well, whatever the limit: it was used while Redis was lost
--   7 beginning of the window before, 8 of this one, 9 of the next one
-- Answer: {1, count, time, count, time, …}, or {0, number of the limit, count, milliseconds to wait
-- or -1 where it never fits}.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local is_reserved = ARGV[1] == 'reserve'
local WIDTH = 9
local number = (#ARGV - 2) / WIDTH
local counts, times = {}, {}
local full, full_count, longest = nil, 0, 0

for i = 1, number do
  local at = 2 + (i - 1) * WIDTH
  local key, field = KEYS[tonumber(ARGV[at + 1])], ARGV[at + 2]
  local period, most = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local amount, extra = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local stored = redis.call('HMGET', key, field, field .. ':t')
  local count, time = tonumber(stored[1] or 0), tonumber(stored[2] or -1)
  if period > 0 then
    if time < 0 or time > now then time = now end
    local leaked = math.floor((now - time) * most / period)
    if leaked >= count then
      count, time = 0, now
    elseif leaked > 0 then
      count, time = count - leaked, time + leaked * period / most
    end
  else
    local window = tonumber(ARGV[at + 8])
    if now < window then
      window = tonumber(ARGV[at + 7])
    elseif now >= tonumber(ARGV[at + 9]) then
      window = tonumber(ARGV[at + 9])
    end
    -- A refund belongs to the window in which the amount was reserved.
    if not is_reserved and amount < 0 and time ~= tonumber(ARGV[at + 8]) then amount = 0 end
    -- Redis' clock may have been set back: then the count goes on.
    if time < window then count, time = 0, window end
  end
  count = math.max(0, count + extra)
  if is_reserved and amount > 0 and count + amount > most then
    local wait = -1
    if amount <= most then
      if period > 0 then
        wait = math.ceil((count + amount - most) * period / most - (now - time))
      else
        wait = tonumber(ARGV[at + 9]) - now
      end
      wait = math.max(1, wait)
    end
    if full == nil or (longest >= 0 and (wait < 0 or wait > longest)) then
      full, full_count, longest = i, count, wait
    end
  end
  counts[i], times[i] = math.max(0, count + amount), time
end

if full then return {0, full, full_count, longest} end

local answer = {1}
for i = 1, number do
  local at = 2 + (i - 1) * WIDTH
  local key, field = KEYS[tonumber(ARGV[at + 1])], ARGV[at + 2]
  redis.call('HSET', key, field, string.format('%.0f', counts[i]), field .. ':t',
    string.format('%.3f', times[i]))
  answer[#answer + 1] = counts[i]
  answer[#answer + 1] = math.floor(times[i])
end
for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
return answer
