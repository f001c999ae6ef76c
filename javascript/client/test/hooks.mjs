// React's hooks, as far as ours uses them: one component at a time, rendered again as soon as its state changes.

let component;

export function mounted(render) {
  const mine = { slots: [], effects: [], again: null };
  let shown;
  mine.again = () => {
    [component, mine.place] = [mine, 0];
    shown = render();
    mine.effects.splice(0).forEach((begin) => begin());
  };
  mine.again();
  return { now: () => shown, unmount: () => mine.slots.forEach((slot) => slot.leave?.()) };
}

function slot(first) {
  const { slots, place } = component;
  component.place += 1;
  slots[place] ??= first();
  return slots[place];
}

export function useState(first) {
  const mine = component;
  const own = slot(() => ({ value: first }));
  own.set ??= (next) => {
    own.value = typeof next === "function" ? next(own.value) : next;
    mine.again();
  };
  return [own.value, own.set];
}

export const useRef = (first) => slot(() => ({ current: first }));

export function useMemo(make, needs) {
  const own = slot(() => ({}));
  if (!own.needs || needs.some((need, place) => need !== own.needs[place])) Object.assign(own, { needs, value: make() });
  return own.value;
}

export const useCallback = (work, needs) => useMemo(() => work, needs);

export function useEffect(begin, needs) {
  const mine = component;
  const own = slot(() => ({}));
  useMemo(() => mine.effects.push(() => [own.leave?.(), (own.leave = begin())]), needs);
}
