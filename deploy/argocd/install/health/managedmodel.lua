-- Health of a ManagedModel. Degraded is what a person has to mend: a policy that was refused, a first training that
-- failed, a champion that is not served. Data that drifts, a candidate that was refused or a retraining that failed
-- leave the champion serving: they are the platform at work, and would otherwise block syncs on data.
-- Runs with Lua's basic and table functions only.

local function is(status, message)
  return {status = status, message = message or ""}
end

local function found(kind)
  for _, condition in ipairs(obj.status.conditions) do
    if condition.type == kind then
      return condition
    end
  end
  return {status = "Unknown", reason = "", message = "the operator has not said whether it is " .. kind}
end

if obj.metadata.deletionTimestamp ~= nil then
  return is("Progressing", obj.status ~= nil and obj.status.next or "is being deleted")
end
if obj.status == nil or obj.status.conditions == nil then
  return is("Progressing", "the operator has not looked at it yet")
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return is("Progressing", found("Accepted").message)
end

local accepted, stalled, serving = found("Accepted"), found("Stalled"), found("Serving")
local trained, progressing, drifting = found("Trained"), found("Progressing"), found("Drifting")

if accepted.status == "False" then
  return is("Degraded", accepted.message)
end
if stalled.status == "True" then
  return is("Degraded", stalled.message)
end
if serving.status == "False" and serving.reason == "NotLoaded" then
  return is("Degraded", serving.message)
end
if obj.spec.paused == true then
  return is("Suspended", "spec.paused is true: nothing is trained or rolled out")
end
if progressing.reason == "RolloutPaused" then
  return is("Suspended", progressing.message)
end
if serving.status == "False" then
  if progressing.status == "True" then
    return is("Progressing", progressing.message)
  end
  if trained.reason == "RunCancelled" then
    return is("Suspended", trained.message)
  end
  return is("Progressing", serving.message)
end
for _, part in ipairs({accepted, serving}) do
  if part.status ~= "True" then
    return is("Progressing", part.message)
  end
end
if trained.status == "False" then
  return is("Healthy", serving.message .. "; " .. trained.message)
end
if drifting.status == "True" then
  return is("Healthy", serving.message .. "; " .. drifting.message)
end
return is("Healthy", serving.message)
