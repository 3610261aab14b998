// Scores each reading of a bed by NEWS2, keeps the bed's state, and tells what becomes of its alarm.
//
// The score: Royal College of Physicians. National Early Warning Score (NEWS) 2: Standardising the assessment of acute-illness
// severity in the NHS. Updated report of a working party. London: RCP, 2017. Charts 1 (the score) and 2 (thresholds).

// Chart 1: pairs of a band's upper border and its points.
const RESPIRATION = [[8, 3], [11, 1], [20, 0], [24, 2], [Infinity, 3]];
const SPO2_SCALE_1 = [[91, 3], [93, 2], [95, 1], [Infinity, 0]];
const SPO2_SCALE_2_AIR = [[83, 3], [85, 2], [87, 1], [Infinity, 0]];
const SPO2_SCALE_2_OXYGEN = [[83, 3], [85, 2], [87, 1], [92, 0], [94, 1], [96, 2], [Infinity, 3]];
const SYSTOLIC = [[90, 3], [100, 2], [110, 1], [219, 0], [Infinity, 3]];
const PULSE = [[40, 3], [50, 1], [90, 0], [110, 1], [130, 2], [Infinity, 3]];
const TEMPERATURE = [[35.0, 3], [36.0, 1], [38.0, 0], [39.0, 1], [Infinity, 2]];

// Chart 2, from the least; the first is no alarm.
const RISKS = ['low', 'low-medium', 'medium', 'high'];
const ALARMS = ['none', ...RISKS.slice(1)];

// What a monitor can show. Values that are rare or fatal are possible; a monitor that shows others is broken.
const POSSIBLE = { respiration: [0, 100], spo2: [0, 100], scale: [1, 2], systolic: [0, 350], pulse: [0, 350], temperature: [10, 47] };

class Refused extends Error {}

export default {
  async fetch(request, env) {
    try {
      return await take(request, env);
    } catch (error) {
      if (!(error instanceof Refused)) throw error; // The event comes again.
      console.warn(`${attribute(request, 'subject')}: refused: ${error.message}`);
      return new Response(`${error.message}\n`, { status: 400 }); // To the dead letters: it would not get better.
    }
  },
};

async function take(request, { kv: { ward }, stream: { alarms }, mqtt, calm }) {
  const bed = bedOf(attribute(request, 'subject'));
  const reading = checked(await request.text());
  const event = `${request.headers.get('ce-source')} ${request.headers.get('ce-id')}`;
  const at = request.headers.get('ce-time');
  const { value: before, version } = await ward.getWithVersion(bed, 'json');
  if (before?.event === event) return new Response(null, { status: 204 }); // It was done, and the answer was lost.

  const points = pointsOf(reading);
  const score = Object.values(points).reduce((sum, each) => sum + each);
  const risk = riskOf(score, points);
  const { change, ...alarm } = next(before?.alarm, risk, Number(calm), at);
  // First tell, then remember. After a crash in between, the same event leads to the same alarm under the same id.
  if (change) {
    const told = { bed, alarm: ALARMS[alarm.level], before: ALARMS[before?.alarm.level ?? 0], score, points, at };
    await alarms.publish(told, { id: event, type: `ward.alarm.${change}`, subject: bed, time: at });
    await mqtt.publish(`ward/${bed}/alarm`, { alarm: told.alarm, score, since: alarm.since }, { retain: true, contentType: 'application/json' });
    console.log(`bed ${bed}: alarm ${change}: ${told.alarm}, score ${score}`);
  }
  // Whoever was faster wins, and this event comes again.
  await ward.put(bed, { reading, points, score, risk: RISKS[risk], alarm, at, event }, { ifVersion: version });
  return new Response(null, { status: 204 });
}

// An attribute of the event, without the encoding of CloudEvents HTTP binding §3.1.3.2.
function attribute(request, name) {
  return decodeURIComponent(request.headers.get(`ce-${name}`) ?? '');
}

function bedOf(topic) {
  const bed = topic.split('/')[1] ?? '';
  if (!/^\P{C}{1,64}$/u.test(bed)) throw new Refused('the name of a bed has 1 to 64 characters, and no control characters');
  return bed;
}

function checked(text) {
  let given;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw new Refused(`not JSON: ${error.message}`);
  }
  const reading = {};
  for (const [name, [least, most]] of Object.entries(POSSIBLE)) {
    const value = given?.[name];
    const whole = name === 'temperature' ? Number.isFinite(value) : Number.isInteger(value);
    if (!whole) throw new Refused(`\`${name}\` is no ${name === 'temperature' ? 'number' : 'whole number'}: ${JSON.stringify(value)}`);
    if (value < least || value > most) throw new Refused(`\`${name}\` is ${value}, which is not from ${least} to ${most}`);
    reading[name] = value;
  }
  // The chart's borders have one decimal.
  reading.temperature = Math.round(given.temperature * 10) / 10;
  if (typeof given.oxygen !== 'boolean') throw new Refused(`\`oxygen\` is neither true nor false: ${JSON.stringify(given.oxygen)}`);
  if (!['A', 'C', 'V', 'P', 'U'].includes(given.consciousness)) {
    throw new Refused(`\`consciousness\` is none of A, C, V, P, U: ${JSON.stringify(given.consciousness)}`);
  }
  return { ...reading, oxygen: given.oxygen, consciousness: given.consciousness };
}

function pointsOf({ respiration, spo2, scale, oxygen, systolic, pulse, consciousness, temperature }) {
  const points = (bands, value) => bands.find(([upTo]) => value <= upTo)[1];
  const saturation = scale === 1 ? SPO2_SCALE_1 : oxygen ? SPO2_SCALE_2_OXYGEN : SPO2_SCALE_2_AIR;
  return {
    respiration: points(RESPIRATION, respiration),
    spo2: points(saturation, spo2),
    oxygen: oxygen ? 2 : 0,
    systolic: points(SYSTOLIC, systolic),
    pulse: points(PULSE, pulse),
    consciousness: consciousness === 'A' ? 0 : 3,
    temperature: points(TEMPERATURE, temperature),
  };
}

// An index of RISKS. A single parameter that scores 3 asks for an urgent review whatever the sum is.
function riskOf(score, points) {
  if (score >= 7) return 3;
  if (score >= 5) return 2;
  return Object.values(points).includes(3) ? 1 : 0;
}

// The alarm after this reading, and what changed, if anything. It rises at once. It falls after `calm` readings in a row that are
// below it, to the highest of them: a value that moves about a border raises one alarm.
function next(before = { level: 0, below: 0, highest: 0, since: null }, risk, calm, at) {
  const { level } = before;
  const steady = { ...before, below: 0, highest: 0 };
  if (risk > level) return { ...steady, level: risk, since: at, change: level === 0 ? 'raised' : 'escalated' };
  if (risk === level) return steady;
  const below = before.below + 1, highest = Math.max(before.highest, risk);
  if (below < calm) return { ...before, below, highest };
  return { ...steady, level: highest, since: at, change: highest === 0 ? 'cleared' : 'eased' };
}
