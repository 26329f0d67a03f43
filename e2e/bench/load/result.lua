-- Prints what wrk measured as one line of JSON: microseconds, and counts of errors.
function done(summary, latency)
   local errors = summary.errors
   print(string.format(
      '{"requests": %d, "duration_us": %d, "p50_us": %.1f, "p99_us": %.1f, "errors": %d}',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
